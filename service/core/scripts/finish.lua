-- id, owner, the terminal state, result or error or '', stored_bytes or ''
local id, owner, target = ARGV[1], ARGV[2], ARGV[3]
local state = get(id, 'state')
if state == target and get(id, 'owner') == owner then return 1 end -- asked again after a broken connection
if not member(id, owner) then return 0 end

if target == 'succeeded' then
  if state ~= 'running' then return 0 end
  if get(id, 'kind') == 'job' and redis.call('HGET', key('blocks', id), 'judge') ~= owner then return 0 end
  redis.call('HSET', key('record', id), 'result', ARGV[4])
  store(id, tonumber(ARGV[5]))
elseif target == 'failed' then
  if state == 'cancelling' then target = 'cancelled' else redis.call('HSET', key('record', id), 'error', ARGV[4]) end
elseif state ~= 'cancelling' then
  return 0
end
redis.call('HSET', key('record', id), 'owner', owner)
enter(id, target)
return 1
