// Package admintest supplies a Backend with fixed answers for tests of the admin server and of the CLI: one topic with a real-time
// and a lagging reader over two tiers, one override, one migration under way. It keeps a log of calls that would change something.
package admintest
