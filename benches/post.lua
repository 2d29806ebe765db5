-- What wrk sends, and one line of JSON about what came of it. The body is the first argument after `--`.
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

function init(arguments)
   wrk.body = arguments[1]
end

-- `status` counts answers of 400 and above, `timeout` those that took longer than wrk's timeout.
function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      'summary {"requests": %d, "microseconds": %d, "connect": %d, "read": %d, "write": %d, "status": %d, ' ..
      '"timeout": %d, "p50_us": %d, "p90_us": %d, "p99_us": %d, "max_us": %d}\n',
      summary.requests, summary.duration, errors.connect, errors.read, errors.write, errors.status, errors.timeout,
      latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max))
end
