-- Changes what is known of one user, in one step.
--
-- KEYS[1] is his hash: a field per device, "<session epoch, 20 digits> <expiry, ms> <route, JSON>".
-- ARGV: ms that a route is believed, ms that the user is remembered, then for each change three:
-- device, session epoch (20 digits), route. An empty route removes the device.
-- The field "" stands for "nobody is connected" in a hash that would otherwise not exist.
local key = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expiry = string.format('%.0f', now + ARGV[1])

local epochs, devices = {}, 0
local all = redis.call('HGETALL', key)
for i = 1, #all, 2 do
	local device, value = all[i], all[i + 1]
	if device ~= '' then
		if (tonumber(string.sub(value, 22, 34)) or 0) > now then
			epochs[device] = string.sub(value, 1, 20)
			devices = devices + 1
		else
			redis.call('HDEL', key, device)
		end
	end
end

for i = 3, #ARGV, 3 do
	local device, epoch, route = ARGV[i], ARGV[i + 1], ARGV[i + 2]
	local held = epochs[device]
	if not held or held <= epoch then
		if route ~= '' then
			redis.call('HSET', key, device, epoch .. ' ' .. expiry .. ' ' .. route)
			epochs[device] = epoch
			if not held then devices = devices + 1 end
		elseif held then
			redis.call('HDEL', key, device)
			epochs[device] = nil
			devices = devices - 1
		end
	end
end

if devices == 0 then redis.call('HSET', key, '', '') end
redis.call('PEXPIRE', key, ARGV[2])
