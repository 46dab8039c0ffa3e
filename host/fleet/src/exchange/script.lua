-- One exchange of one host for one part. All keys are in one slot of a cluster.
-- KEYS: state (hash: epoch, version, number of the last exchange of each host), values (hash: item -> "VALUE ENDS"), changes (sorted set: item by the
-- version that changed it), ends (sorted set: item by its end), hosts (sorted set: host by the time of its last exchange).
-- An item is the 16 bytes of its key and the 16 bytes of the host's instance, so a host writes only what is its own.
local state, values, changes, ends, hosts = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local me, label, number = ARGV[1], ARGV[2], tonumber(ARGV[3])
local epoch, since, fresh = ARGV[4], ARGV[5], ARGV[6]
local most_kept, most_read = tonumber(ARGV[7]), tonumber(ARGV[8])
local absence, life = tonumber(ARGV[9]), tonumber(ARGV[10])
local answered = tonumber(ARGV[11])
local MARK = 'portcullis'

-- What other programs keep under these names is left as it is.
local expected = { 'hash', 'hash', 'zset', 'zset', 'zset' }
local missing = false
for at = 1, 5 do
  local found = redis.call('TYPE', KEYS[at]).ok
  if found == 'none' then
    missing = missing or at < 5
  elseif found ~= expected[at] then
    return redis.error_reply('FOREIGN ' .. KEYS[at] .. ' a-' .. found)
  elseif at < 5 then
    local marked
    if found == 'hash' then
      marked = redis.call('HGET', KEYS[at], MARK)
    else
      marked = redis.call('ZSCORE', KEYS[at], MARK)
    end
    if not marked then
      return redis.error_reply('FOREIGN ' .. KEYS[at] .. ' a-' .. found)
    end
  end
end

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- A key that was removed or evicted takes the others with it: hosts notice the new epoch and store again what is theirs.
if missing then
  redis.call('DEL', state, values, changes, ends)
  redis.call('HSET', state, MARK, 1, 'epoch', fresh, 'version', 0)
  redis.call('HSET', values, MARK, 1)
  redis.call('ZADD', changes, 0, MARK)
  redis.call('ZADD', ends, '+inf', MARK)
end
local current = redis.call('HGET', state, 'epoch')
local version = tonumber(redis.call('HGET', state, 'version')) or 0

local id = string.sub(label, 1, 32)
local last = tonumber(redis.call('HGET', state, id) or '-1') or -1

-- An older copy of Redis has been restored, or a replica took over that had not received the last changes: it lacks a version that this host
-- has read, or an exchange of this host that was answered.
if epoch == current and (tonumber(since) > version or (last >= 0 and answered > last)) then
  redis.call('HSET', state, 'epoch', fresh)
  current = fresh
end

-- An exchange that arrives after a later one of the same host changes nothing.
local refused = 0
if number > last then
  local kept = redis.call('ZCARD', changes)
  for at = 12, #ARGV, 3 do
    local item, over = ARGV[at] .. me, tonumber(ARGV[at + 2])
    if over > now then
      local known = redis.call('ZSCORE', changes, item)
      if known or kept < most_kept then
        if not known then
          kept = kept + 1
        end
        version = version + 1
        redis.call('HSET', values, item, ARGV[at + 1] .. ' ' .. ARGV[at + 2])
        redis.call('ZADD', changes, version, item)
        redis.call('ZADD', ends, over, item)
      else
        refused = refused + 1
      end
    end
  end
  redis.call('HSET', state, 'version', string.format('%.0f', version), id, string.format('%.0f', number))
end

for _, item in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', now, 'LIMIT', 0, 1000)) do
  redis.call('ZREM', ends, item)
  redis.call('ZREM', changes, item)
  redis.call('HDEL', values, item)
end

redis.call('ZADD', hosts, now, label)
local gone = string.format('(%.0f', now - absence)
for _, host in ipairs(redis.call('ZRANGEBYSCORE', hosts, '-inf', gone, 'LIMIT', 0, 1000)) do
  redis.call('ZREM', hosts, host)
  redis.call('HDEL', state, string.sub(host, 1, 32))
end
for at = 1, 5 do
  redis.call('PEXPIRE', KEYS[at], life)
end

if epoch ~= current then
  since = '0'
end
local reached, more = string.format('%.0f', version), 0
local found = redis.call('ZRANGEBYSCORE', changes, '(' .. since, reached, 'WITHSCORES', 'LIMIT', 0, most_read)
if #found == most_read * 2 then
  reached, more = found[#found], 1
end
local items = {}
for at = 1, #found, 2 do
  local item = found[at]
  if string.sub(item, 17) ~= me and item ~= MARK then
    items[#items + 1] = item
    items[#items + 1] = redis.call('HGET', values, item) or ''
  end
end
return { current, reached, string.format('%.0f', now), redis.call('ZCARD', hosts), refused, more, items }
