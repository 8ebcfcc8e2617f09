package main

import (
	"strings"
	"testing"
)

func TestParseAblation(t *testing.T) {
	for text, want := range map[string]ablation{
		"": {}, "convoys": {convoys: true}, "split": {split: true}, "split,convoys": {convoys: true, split: true}, "cores": {cores: true},
	} {
		if got, err := parseAblation(text); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, bad := range []string{"convoy", "convoys,", ",", " split", "all"} {
		if _, err := parseAblation(bad); err == nil || !strings.Contains(err.Error(), "use convoys, split, cores") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
