-- id: queued → cancelled, running → cancelling (cancelled if no live member remains).
-- Returns the state, and 1 if it is new; or nothing.
local id = ARGV[1]
local state = get(id, 'state')
if not state then return nil end
if state == 'queued' or (state == 'running' and not held(id)) then
  enter(id, 'cancelled')
elseif state == 'running' then
  enter(id, 'cancelling')
end
local after = get(id, 'state')
return {after, after ~= state and 1 or 0}
