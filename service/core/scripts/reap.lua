-- id: with an expired lease, running → queued (failed after too many attempts), cancelling → cancelled.
-- Returns the new state, or nothing.
local id = ARGV[1]
local state = get(id, 'state')
if (state ~= 'running' and state ~= 'cancelling') or held(id) then return nil end
if state == 'cancelling' then
  enter(id, 'cancelled')
elseif number(id, 'strikes') >= MAX_ATTEMPTS then
  give_up(id)
else
  enter(id, 'queued')
end
return get(id, 'state')
