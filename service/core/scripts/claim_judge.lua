-- id, owner
local id, owner, blocks = ARGV[1], ARGV[2], key('blocks', ARGV[1])
if get(id, 'state') ~= 'running' or not member(id, owner) then return 0 end
local other = redis.call('HGET', blocks, 'judge')
if other and other ~= owner and live(id, other) then return 0 end
redis.call('HSET', blocks, 'judge', owner)
return 1
