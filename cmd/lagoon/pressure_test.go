package main

import (
	"path/filepath"
	"testing"
)

func TestIOPressure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "io")
	exports(t, path, ioPressure{path}, map[string][]string{
		"some avg10=12.50 avg60=0.44 avg300=0.76 total=1234\nfull avg10=7.00 avg60=0.00 avg300=0.00 total=0\n": {"lagoon_psi_io_some_ratio 0.125"},
		"some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n":                                                     {"lagoon_psi_io_some_ratio 0"},
		"full avg10=7.00 avg60=0.00 avg300=0.00 total=0\n":                                                     nil,
		"some avg10=much\n": nil,
		"":                  nil,
	})
}
