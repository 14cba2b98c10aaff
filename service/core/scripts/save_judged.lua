-- id, owner, judged, next block
local id, owner, blocks = ARGV[1], ARGV[2], key('blocks', ARGV[1])
if get(id, 'state') ~= 'running' or not member(id, owner) then return 0 end
if redis.call('HGET', blocks, 'judge') ~= owner then return 0 end
redis.call('HSET', blocks, 'judged', ARGV[3], 'next', ARGV[4])
advanced(id)
return 1
