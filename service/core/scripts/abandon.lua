-- Prefix of owners: they have died, so what they held is free. Returns id and new state, in turn, of each record that none holds now.
local prefix, changed = ARGV[1], {}
for _, kind in ipairs({'adapter', 'job'}) do
  for _, state in ipairs({'running', 'cancelling'}) do
    for _, id in ipairs(redis.call('ZRANGE', key('state', kind .. ':' .. state), 0, -1)) do
      local dead = 0
      for _, owner in ipairs(redis.call('ZRANGE', key('members', id), 0, -1)) do
        if string.sub(owner, 1, #prefix) == prefix then dead = dead + redis.call('ZREM', key('members', id), owner) end
      end
      if dead > 0 and not held(id) then
        if state == 'cancelling' then enter(id, 'cancelled') else relieve(id) end
        changed[#changed + 1] = id
        changed[#changed + 1] = get(id, 'state')
      end
    end
  end
end
return changed
