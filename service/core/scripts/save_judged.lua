-- id, owner, judged, next block, object key of the verdict on the block before it
local id, owner, blocks = ARGV[1], ARGV[2], key('blocks', ARGV[1])
if get(id, 'state') ~= 'running' or not member(id, owner) then return 0 end
if redis.call('HGET', blocks, 'judge') ~= owner then return 0 end
redis.call('HSET', blocks, 'judged', ARGV[3], 'next', ARGV[4], 'verdict:' .. (tonumber(ARGV[4]) - 1), ARGV[5])
advanced(id)
return 1
