-- id, owner, ahead, stop or '', skipped block or '': claims the lowest unfinished block that no other live member has.
-- Returns its number; 'failed' if that ended the job; or nothing.
local id, owner, stop = ARGV[1], ARGV[2], tonumber(ARGV[4])
if get(id, 'state') ~= 'running' or not member(id, owner) then return nil end
local blocks = key('blocks', id)
local first = tonumber(redis.call('HGET', blocks, 'next') or 0)
local last = first + tonumber(ARGV[3]) - 1
if stop then last = math.min(last, stop - 1) end
for block = first, last do
  if tostring(block) ~= ARGV[5] and redis.call('HEXISTS', blocks, 'done:' .. block) == 0 then
    local other = redis.call('HGET', blocks, 'owner:' .. block)
    if other == owner then return block end
    if not other or not live(id, other) then
      if other then -- its worker died, which is no try
        redis.call('HINCRBY', blocks, 'tries:' .. block, -1)
        redis.call('HINCRBY', blocks, 'deaths:' .. block, 1)
      end
      local tries = redis.call('HINCRBY', blocks, 'tries:' .. block, 1)
      local deaths = tonumber(redis.call('HGET', blocks, 'deaths:' .. block) or 0)
      if tries > MAX_ATTEMPTS or deaths >= MAX_DEATHS then
        redis.call('HSET', key('record', id), 'strikes', tries - 1, 'deaths', deaths)
        give_up(id)
        return 'failed'
      end
      redis.call('HSET', blocks, 'owner:' .. block, owner)
      return block
    end
  end
end
return nil
