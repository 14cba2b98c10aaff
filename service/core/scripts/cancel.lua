-- id: queued → cancelled, running → cancelling (cancelled where nobody is left to notice). The state, or nothing.
local id = ARGV[1]
local state = get(id, 'state')
if state == 'queued' or (state == 'running' and not held(id)) then
  enter(id, 'cancelled')
elseif state == 'running' then
  enter(id, 'cancelling')
end
return get(id, 'state')
