-- id: how many records of its kind start before it if every key has its turn; nothing if it is not queued.
local id = ARGV[1]
if get(id, 'state') ~= 'queued' then return nil end
local kind, own_key = get(id, 'kind'), get(id, 'key_id')
local served = key('served', kind)
local own = redis.call('ZRANK', key('index', kind .. ':' .. own_key .. ':queued'), id)
local ahead, own_served = own, tonumber(redis.call('HGET', served, own_key) or 0)
local function first(key_id) return redis.call('ZRANGE', key('index', kind .. ':' .. key_id .. ':queued'), 0, 0)[1] end
for _, key_id in ipairs(redis.call('SMEMBERS', key('waiting', kind))) do
  local waiting = redis.call('ZCARD', key('index', kind .. ':' .. key_id .. ':queued'))
  if key_id ~= own_key and waiting > 0 then
    local theirs = tonumber(redis.call('HGET', served, key_id) or 0)
    local earlier = theirs < own_served or (theirs == own_served and first(key_id) < first(own_key))
    ahead = ahead + math.min(waiting, own + (earlier and 1 or 0))
  end
end
return ahead
