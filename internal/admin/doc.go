// Package admin is the HTTP face for operators: health, metrics, and a JSON API under /api/v1 that shows what is resident,
// who reads what and why each read is served as it is. It holds no state of the broker: everything comes from a Backend,
// which the daemon implements over the partition store.
//
// It is not for Kafka clients, and not a door to the file system: no call takes a path.
//
//	request ─► limits (header, connections, time) ─► host allow-list ─► route (exact, deny by default)
//	        ─► bearer token ─► cross-origin ─► known query parameters ─► body (JSON, bounded, strict)
//	        ─► handler ─► Backend ─► JSON, or an RFC 9457 problem
//
// Safety rules, each with a test: a path is matched as it was sent, segment by segment, and never cleaned, so //, /x/../y and
// %2f reach nothing that the plain path does not; everything but /livez, /readyz, their aliases and the files of the page, which
// hold no data, needs the token when one is configured, unknown paths included; a listener outside loopback without a token is refused by New; GET and HEAD never change
// anything; what changes something needs Content-Type application/json, passes http.CrossOriginProtection and leaves
// an audit line in the log; a Host header that is neither an address nor an allowed name is refused (DNS rebinding).
//
// A unix socket may be served beside the TCP port: who may open it is the file's mode, so its callers need no token.
//
// Evicting and warming are dry runs unless the body says "dry_run": false.
//
// Lists carry now and total. Units are in names (_bytes, _seconds, _ratio), times are RFC 3339, offsets are numbers
// below 2^53. The contract is openapi.json, embedded and served; a test compares it with the routes.
//
// GET / is a page for people (page/, page.go): it draws what the stream sends, and asks the API as any other client.
//
// /metrics holds what the packages registered, tiers and topics, and the names that stock dashboards expect; /metrics/detailed
// holds a series per partition and reader.
//
// /debug/pprof/{profile} and /api/v1/debug/bundle are for whoever looks into a problem: they need the token as everything does, leave an
// audit line, and have places of their own, so that they work under overload. A bundle asks part by part, and leaves out what does not
// answer (debug.go).
//
// /api/v1/stream sends the same answers as server-sent events: a full frame, then a merge patch (RFC 7396) a second. Frames are made while
// somebody looks, once for all who do (stream.go, frame.go); a client that is too slow misses some and gets a full one again. Close ends
// streams at once.
//
// Concurrency: a Server is safe for concurrent use. Handlers run on net/http's goroutines, at most maxInFlight at a time, and maxSlow
// of those that wait for devices;
// health endpoints and streams, of which there are at most maxStreams, are not counted, so they answer under overload.
package admin
