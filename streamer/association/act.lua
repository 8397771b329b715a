-- What an associator does on Redis as the one that holds the lease, or not at all.
--
-- KEYS  1 lease  2 number of the newest token  3 the newest token  4 notes  5 checkpoint      (all share the hash tag)
-- ARGV  1 what  2 who  3 token
--       take:        4 length (ms)                      -> the token, a number that only grows and who has it; '' where another holds it
--       keep:        4 length (ms)                      -> 'done' or 'fenced'
--       leave:                                          -> 'done' or 'fenced'
--       checkpoint:  4 state  5 entry that it goes to   -> the same; what it covers goes from the stream
--       release:                                        -> the same; a note that says so, for whoever takes over to do the same
-- A token is of use as long as it is the newest: who was paused for longer than the lease finds another's here.

local what, who, token = ARGV[1], ARGV[2], ARGV[3]
if what == 'take' then
  local holder = redis.call('GET', KEYS[1])
  if holder and holder ~= who then
    return ''
  end
  redis.call('SET', KEYS[1], who, 'PX', ARGV[4])
  token = redis.call('INCR', KEYS[2]) .. ' ' .. who
  redis.call('SET', KEYS[3], token)
  return token
end
if redis.call('GET', KEYS[3]) ~= token then
  return 'fenced'
end
if what == 'keep' then
  redis.call('SET', KEYS[1], who, 'PX', ARGV[4])
elseif what == 'leave' then
  redis.call('DEL', KEYS[1])
elseif what == 'checkpoint' then
  redis.call('SET', KEYS[5], ARGV[4])
  redis.call('XTRIM', KEYS[4], 'MINID', ARGV[5])
elseif what == 'release' then
  redis.call('XADD', KEYS[4], '*', 'release', '1')
end
return 'done'
