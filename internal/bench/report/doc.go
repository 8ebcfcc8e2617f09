// Package report is what lagoon-bench found out: the results as JSON, and the same as text
//
//	result.go    the shapes; units are in the names
//	text.go      the table of one run
//
// It only formats: no I/O, no clock. A figure that was not measured is absent in JSON (a pointer or an empty list) and "-" in a
// table; it is never 0.
package report
