// Package operator uses the real binary as an operator does: it asks a running broker with the CLI, over TCP and over the unix socket,
// watches it, checks the machine, and runs the demonstration. What the commands print for every case stands in golden files next to
// them (cmd/lagoon/testdata); here it is shown that the figures are those of a broker that works.
package operator
