-- id, owner, progress, counts or ''
local id, owner = ARGV[1], ARGV[2]
if not member(id, owner) then return 0 end
redis.call('HSET', key('record', id), 'progress', ARGV[3])
if ARGV[4] ~= '' then redis.call('HSET', key('record', id), 'counts', ARGV[4]) end
redis.call('HINCRBY', key('record', id), 'revision', 1)
announce(id)
return 1
