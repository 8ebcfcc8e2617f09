// Command lagoon is the broker and its tool: `lagoon dev` and `lagoon serve` run the daemon, everything else asks a running
// daemon over its admin API, or checks a configuration file.
//
//	main.go      commands, exit codes, one-line errors
//	client.go    the admin API as the CLI sees it
//	output.go    tables, bars, JSON
//	ask_*.go     one file per noun; top_frame.go draws what `lagoon top` shows
//	serve.go     serve, dev, check-config
//	demo.go      dev --demo: a backfill beside a real-time consumer; demo_show.go draws it
//	doctor.go    is this machine fit for Lagoon
//	daemon.go    puts the packages together, and takes them apart in order
//	backend.go   answers the admin API from the partition store
//	backend_explain.go tells the decision for one read, link by link
//	loglevel.go  how much is logged, for a time
//	reload.go    takes what can change at run time of a new configuration
//	debug.go     what only the daemon can put into a debug bundle
//	sampler.go   looks at the page cache within a percent of a core; grid.go cuts what it saw into cells
//
// Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 the check says no.
package main
