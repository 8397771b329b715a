-- One alert onto the stream and the channel, or not at all.
--
-- KEYS  1 stream  2 seen:<id>  3 opened:<subject>  4 epoch  5 newest token of the associator's lease
--       (all share the hash tag: one slot of a cluster)
-- ARGV  1 epoch and run id of the server, a blank between them  2 id  3 revision  4 body  5 channel  6 retention (s)  7 oldest entry to keep (ms since 1970)
--       8 of an opening when it was decided (ms since 1970), or ''  9 dead time (ms)  10 token of who publishes, or '' where it needs none
-- Returns 'fenced' (another associator has taken the lease since), 'sent', 'repeat' (this revision or a later one was there), 'echo' (another daemon has told of this one under another id)
-- or 'epoch' (this Redis may not hold the data that the publisher knows: it was emptied, or another one took over). Asked
-- for each alert: one that went to the new server before those that it lacks would take their place and their revisions'.

local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if (redis.call('GET', KEYS[4]) or '') .. ' ' .. run_id ~= ARGV[1] then
  return 'epoch'
end
if ARGV[10] ~= '' and redis.call('GET', KEYS[5]) ~= ARGV[10] then
  return 'fenced'
end
local seen = redis.call('GET', KEYS[2])
if seen == 'echo' then
  return 'echo'
end
if seen and tonumber(seen) >= tonumber(ARGV[3]) then
  return 'repeat'
end
if ARGV[8] ~= '' then
  -- In time, not in numbers of windows: with another hop those lie far off, and below them what is new would be trimmed at once.
  local at, dead = tonumber(ARGV[8]), tonumber(ARGV[9])
  local near = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. (at - dead), '(' .. (at + dead))
  for _, id in ipairs(near) do
    if id ~= ARGV[2] then
      redis.call('SET', KEYS[2], 'echo', 'EX', ARGV[6])
      return 'echo'
    end
  end
  redis.call('ZADD', KEYS[3], at, ARGV[2])
  redis.call('ZREMRANGEBYRANK', KEYS[3], 0, -101)
  redis.call('EXPIRE', KEYS[3], ARGV[6])
end
redis.call('XADD', KEYS[1], 'MINID', '~', ARGV[7], '*', 'id', ARGV[2], 'revision', ARGV[3], 'alert', ARGV[4])
redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[6])
redis.call('PUBLISH', ARGV[5], ARGV[4])
return 'sent'
