-- One note of a shard onto the associator's stream.
--
-- KEYS  1 stream  2 epoch       ARGV  1 epoch and run id of the server, a blank between them  2 note  3 oldest entry to keep (ms since 1970)
-- Returns 'sent', or 'epoch' (publish.lua says what that is).

local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
if (redis.call('GET', KEYS[2]) or '') .. ' ' .. run_id ~= ARGV[1] then
  return 'epoch'
end
redis.call('XADD', KEYS[1], 'MINID', '~', ARGV[3], '*', 'note', ARGV[2])
return 'sent'
