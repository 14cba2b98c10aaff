-- id, owner, '1' if the attempt counts, reason or '', '1' if no more workers are wanted. With the last member gone:
-- running → queued, after a pause if the attempt counts, or failed if it was the last; cancelling → cancelled.
-- Returns the new state, or nothing.
local id, owner, counts = ARGV[1], ARGV[2], ARGV[3] == '1'
if not member(id, owner) then return nil end
if ARGV[4] ~= '' then redis.call('HSET', key('record', id), 'reason', ARGV[4]) end
if ARGV[5] == '1' then redis.call('HSET', key('record', id), 'workers', 1) end

redis.call('ZREM', key('members', id), owner)
local blocks = key('blocks', id)
local fields = redis.call('HGETALL', blocks)
for i = 1, #fields, 2 do
  local block = string.match(fields[i], '^owner:(%d+)$')
  if block and fields[i + 1] == owner then
    redis.call('HDEL', blocks, fields[i])
    if not counts then redis.call('HINCRBY', blocks, 'tries:' .. block, -1) end
  end
end
if redis.call('HGET', blocks, 'judge') == owner then redis.call('HDEL', blocks, 'judge') end

if held(id) then return get(id, 'state') end
if get(id, 'state') == 'cancelling' then
  enter(id, 'cancelled')
  return 'cancelled'
end
if not counts then
  redis.call('HINCRBY', key('record', id), 'attempt', -1)
  redis.call('HSET', key('record', id), 'strikes', math.max(0, number(id, 'strikes') - 1))
  enter(id, 'queued')
elseif number(id, 'strikes') >= MAX_ATTEMPTS then
  give_up(id)
else
  queue_after(id, number(id, 'strikes') - 1)
end
return get(id, 'state')
