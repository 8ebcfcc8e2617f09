package main

import (
	"fmt"
	"strings"
)

// ablateEnv names mechanisms to leave out, comma-separated, so that a measurement shows what each of them is for
// (docs/benchmarks.md). It is no configuration, since nobody should run without them; mechanisms that somebody may want to do
// without have keys.
const ablateEnv = "LAGOON_ABLATE"

// ablation is what is left out.
type ablation struct {
	convoys bool // lagging readers of one range each read it themselves
	split   bool // a fetch waits for all of its partitions, cold ones too
	cores   bool // adaptive budgets look at latencies only, not at how scarce cores are
}

func parseAblation(text string) (a ablation, err error) {
	if text == "" {
		return a, nil
	}
	for name := range strings.SplitSeq(text, ",") {
		switch name {
		case "convoys":
			a.convoys = true
		case "split":
			a.split = true
		case "cores":
			a.cores = true
		default:
			return a, fmt.Errorf("%s=%s: %q is no mechanism that can be left out: use convoys, split, cores", ablateEnv, text, name)
		}
	}
	return a, nil
}
