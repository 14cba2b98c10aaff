-- id, owner, the terminal state, result or error or '', stored_bytes or ''. Returns the state that it entered, or nothing.
local id, owner, target = ARGV[1], ARGV[2], ARGV[3]
local state = get(id, 'state')
if state == target and get(id, 'owner') == owner then return state end -- asked again after a broken connection
if not member(id, owner) then return nil end

if target == 'succeeded' then
  if state ~= 'running' then return nil end
  if get(id, 'kind') == 'job' and redis.call('HGET', key('blocks', id), 'judge') ~= owner then return nil end
  redis.call('HSET', key('record', id), 'result', ARGV[4])
  store(id, tonumber(ARGV[5]))
elseif target == 'failed' then
  if state == 'cancelling' then target = 'cancelled' else redis.call('HSET', key('record', id), 'error', ARGV[4]) end
elseif state ~= 'cancelling' then
  return nil
end
redis.call('HSET', key('record', id), 'owner', owner)
enter(id, target)
return target
