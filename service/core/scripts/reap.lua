-- id: with an expired lease, running → queued (failed after too many deaths), cancelling → cancelled.
-- Returns the new state, or nothing.
local id = ARGV[1]
local state = get(id, 'state')
if (state ~= 'running' and state ~= 'cancelling') or held(id) then return nil end
if state == 'cancelling' then enter(id, 'cancelled') else relieve(id) end
return get(id, 'state')
