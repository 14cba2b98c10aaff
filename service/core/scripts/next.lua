-- kind, owner, '1' to join live members: claims the next record. Its turn has the key with the fewest workers, of those
-- the one that was served longest ago, and of its records the oldest.
-- Returns 'claimed' and the record; 'ended', the id and the state of a record that its last worker left so; 'wait' if a
-- worker that may be dead holds a record; or nothing.
local kind, owner, joining = ARGV[1], ARGV[2], ARGV[3] == '1'
local load, choice, soonest = {}, {}, math.huge

local function offer(key_id, id)
  if not choice[key_id] or id < choice[key_id] then choice[key_id] = id end
end

for _, state in ipairs({'cancelling', 'running'}) do
  for _, id in ipairs(redis.call('ZRANGE', key('state', kind .. ':' .. state), 0, -1)) do
    local key_id = get(id, 'key_id')
    if held(id) then
      local workers = redis.call('ZCARD', key('members', id))
      load[key_id] = (load[key_id] or 0) + workers
      soonest = math.min(soonest, number(id, 'lease_until') - now)
      if joining and state == 'running' and workers < number(id, 'workers') then offer(key_id, id) end
    elseif state == 'cancelling' then
      enter(id, 'cancelled')
      return {'ended', id, 'cancelled'}
    elseif relieve(id) == 'failed' then
      return {'ended', id, 'failed'}
    end
  end
end

local waiting, queued = key('waiting', kind), key('state', kind .. ':queued')
if redis.call('SCARD', waiting) == 0 then -- records of a version that kept no such set
  for _, id in ipairs(redis.call('ZRANGE', queued, 0, -1)) do redis.call('SADD', waiting, get(id, 'key_id')) end
end
for _, key_id in ipairs(redis.call('SMEMBERS', waiting)) do
  local own = redis.call('ZRANGE', key('index', kind .. ':' .. key_id .. ':queued'), 0, -1)
  if #own == 0 then redis.call('SREM', waiting, key_id) end
  for _, id in ipairs(own) do
    if tonumber(redis.call('ZSCORE', queued, id)) <= now then
      offer(key_id, id)
      break
    end
  end
end

local best, fewest, longest_ago = nil, nil, nil
for key_id, id in pairs(choice) do
  local workers, served = load[key_id] or 0, tonumber(redis.call('HGET', key('served', kind), key_id) or 0)
  if not best or workers < fewest or (workers == fewest and (served < longest_ago or (served == longest_ago and id < best))) then
    best, fewest, longest_ago = id, workers, served
  end
end
if not best then
  if soonest < 0.75 * LEASE then return {'wait'} end
  return nil
end
redis.call('HSET', key('served', kind), get(best, 'key_id'), string.format('%.6f', now))
if get(best, 'state') == 'running' then
  hold(best, owner)
  return {'claimed', redis.call('HGETALL', key('record', best))}
end
return {'claimed', start(best, owner)}
