package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestDiskIO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "io")
	exports(t, path, diskIO{path}, map[string][]string{
		"rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 50163712\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n": {
			"kafka_server_kafkaserver_linux_disk_read_bytes 5.0163712e+07", "kafka_server_kafkaserver_linux_disk_write_bytes 4096"},
		"read_bytes: many\nwrite_bytes\n": nil,
		"":                                nil,
	})
}

// exports checks what a collector makes of a file of the kernel by its text, and that it exports nothing without the file.
func exports(t *testing.T, path string, c prometheus.Collector, cases map[string][]string) {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	for text, want := range cases {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := gathered(t, reg); !slices.Equal(got, want) {
			t.Errorf("%q: exported %q, want %q", text, got, want)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := gathered(t, reg); got != nil {
		t.Errorf("without the kernel's word: %q", got)
	}
}

// gathered lists the gauges of a registry, name and value.
func gathered(t *testing.T, reg *prometheus.Registry) (out []string) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			out = append(out, fmt.Sprintf("%s %g", f.GetName(), m.GetGauge().GetValue()))
		}
	}
	return out
}
