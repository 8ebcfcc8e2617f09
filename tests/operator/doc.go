// Package operator uses the real binary as an operator does: it asks a running broker with the CLI and with a browser, watches it,
// changes what can be changed at run time, and runs the demonstration. What the commands print for every case stands in golden files next to
// them (cmd/lagoon/testdata); here it is shown that the figures are those of a broker that works.
package operator
