-- id: deletes a finished record that no unfinished job needs. Returns 1 or 0, or the jobs that need it.
local id = ARGV[1]
local state = get(id, 'state')
if not TERMINAL[state] then return 0 end
local users = redis.call('SMEMBERS', key('users', id))
if #users > 0 then return users end
forget_state(id, state)
local all = get(id, 'kind') .. ':' .. get(id, 'key_id')
redis.call('ZREM', key('index', all), id)
if get(id, 'adapter') then redis.call('ZREM', key('index', all .. ':' .. get(id, 'adapter')), id) end
store(id, 0)
redis.call('DEL', key('record', id), key('events', id))
discard(id)
return 1
