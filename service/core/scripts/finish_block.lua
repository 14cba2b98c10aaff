-- id, owner, block, object key
local id, owner, blocks = ARGV[1], ARGV[2], key('blocks', ARGV[1])
if get(id, 'state') ~= 'running' or not member(id, owner) then return 0 end
if redis.call('HGET', blocks, 'done:' .. ARGV[3]) == ARGV[4] then return 1 end -- asked again after a broken connection
if redis.call('HGET', blocks, 'owner:' .. ARGV[3]) ~= owner then return 0 end
redis.call('HDEL', blocks, 'owner:' .. ARGV[3])
redis.call('HSET', blocks, 'done:' .. ARGV[3], ARGV[4])
advanced(id)
return 1
