-- One note of a shard onto the associator's stream.
--
-- KEYS  1 stream  2 epoch  3 lease of the associator        (all share the hash tag)
-- ARGV  1 epoch and run id of the server, a blank between them  2 note  3 entries that the stream may have while nobody reads it
-- Returns 'sent', 'held' (nobody reads, and enough waits here), or 'epoch' (publish.lua says what that is).

local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if (redis.call('GET', KEYS[2]) or '') .. ' ' .. run_id ~= ARGV[1] then
  return 'epoch'
end
if redis.call('EXISTS', KEYS[3]) == 0 and redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[3]) then
  return 'held'
end
redis.call('XADD', KEYS[1], '*', 'note', ARGV[2])
return 'sent'
