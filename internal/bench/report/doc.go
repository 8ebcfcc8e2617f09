// Package report is what lagoon-bench found out: the results as JSON, and the same as text, as one self-contained page, and
// several side by side.
//
//	result.go    the shapes; units are in the names
//	median.go    phases that were repeated: the median of each figure
//	text.go      the tables of one run
//	compare.go   several runs side by side, text or Markdown
//	html.go      latency over time per role, backlog MB/s, phases marked: inline SVG, no script
//
// It only formats: no I/O, no clock. A figure that was not measured is absent in JSON (a pointer or an empty list) and "-" in a
// table; it is never 0.
package report
