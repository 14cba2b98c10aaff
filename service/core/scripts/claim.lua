-- id, owner, '1' to join live members: queued, or running with an expired lease → running.
-- Returns the record; the terminal state that it entered instead; or nothing.
local id, owner, joining = ARGV[1], ARGV[2], ARGV[3] == '1'
local state = get(id, 'state')
if not state or TERMINAL[state] then return nil end

if member(id, owner) and state == 'running' then
  hold(id, owner)
  return redis.call('HGETALL', key('record', id))
end
local others = held(id)
if state == 'cancelling' then
  if others then return nil end
  enter(id, 'cancelled')
  return 'cancelled'
end
if others then
  if not joining then return nil end
  hold(id, owner)
  return redis.call('HGETALL', key('record', id))
end
if state == 'running' and relieve(id) == 'failed' then return 'failed' end
return start(id, owner)
