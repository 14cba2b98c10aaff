-- id: deletes a finished record that no unfinished job needs. Returns 1 or 0, or the jobs that need it.
local id = ARGV[1]
local state = get(id, 'state')
if not TERMINAL[state] then return 0 end
local users = redis.call('SMEMBERS', key('users', id))
if #users > 0 then return users end
forget_state(id, state)
redis.call('ZREM', key('index', get(id, 'kind') .. ':' .. get(id, 'key_id')), id)
store(id, 0)
redis.call('DEL', key('record', id), key('events', id))
discard(id)
return 1
