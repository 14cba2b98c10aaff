-- id, owner: renews the lease. Returns the state, or nothing if the lease is lost.
local id, owner = ARGV[1], ARGV[2]
if not member(id, owner) then return nil end
hold(id, owner)
return get(id, 'state')
