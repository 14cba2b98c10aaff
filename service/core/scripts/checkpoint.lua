-- id, owner, checkpoint
local id, owner = ARGV[1], ARGV[2]
if not member(id, owner) then return 0 end
if get(id, 'checkpoint') ~= ARGV[3] then advanced(id) end
redis.call('HSET', key('record', id), 'checkpoint', ARGV[3])
redis.call('HINCRBY', key('record', id), 'revision', 1)
return 1
