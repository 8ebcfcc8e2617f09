package conf_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"lagoon/conf"
)

func TestUnits(t *testing.T) {
	parse := map[string]func(string) (fmt.Stringer, int64, error){
		"bytes":    func(s string) (fmt.Stringer, int64, error) { v, err := conf.ParseBytes(s); return v, int64(v), err },
		"rate":     func(s string) (fmt.Stringer, int64, error) { v, err := conf.ParseRate(s); return v, int64(v), err },
		"duration": func(s string) (fmt.Stringer, int64, error) { v, err := conf.ParseDuration(s); return v, int64(v), err },
		"percent": func(s string) (fmt.Stringer, int64, error) {
			v, err := conf.ParsePercent(s)
			return v, int64(float64(v)*1e5 + 0.5), err
		},
	}
	for _, tc := range []struct {
		kind, text string
		want       int64
		fault      string // part of the error; "" = fine
	}{
		{"bytes", "512MiB", 512 << 20, ""},
		{"bytes", "500MB", 500e6, ""},
		{"bytes", "1.5GiB", 3 << 29, ""},
		{"bytes", "64 KiB", 64 << 10, ""},
		{"bytes", "0B", 0, ""},
		{"bytes", "9223372036854775807B", 1<<63 - 1, ""},
		{"bytes", "unlimited", -1, ""},
		{"bytes", "9223372036854775808B", 0, "too large"},
		{"bytes", "99999999999TiB", 0, "too large"},
		{"bytes", "-1MiB", 0, "negative"},
		{"bytes", "64", 0, `no unit: write "64B"`},
		{"bytes", "1e6", 0, "no unit"},
		{"bytes", "64mib", 0, `write "64MiB" (1024) or "64MB" (1000)`},
		{"bytes", "64M", 0, `write "64MiB" (1024) or "64MB" (1000)`},
		{"bytes", "64k", 0, `"64KiB"`},
		{"bytes", "64 parsecs", 0, `unknown unit "parsecs"`},
		{"bytes", "", 0, "not a size"},
		{"bytes", "MiB", 0, "not a size"},
		{"bytes", "1..5MiB", 0, "not a size"},
		{"bytes", "1MiB/s", 0, "not a size"},
		{"bytes", strings.Repeat("9", 1000) + "B", 0, "not a size"},
		{"rate", "20MiB/s", 20 << 20, ""},
		{"rate", "20 MB/s", 20e6, ""},
		{"rate", "unlimited", -1, ""},
		{"rate", "20MiB", 0, "per second"},
		{"rate", "20MiB/m", 0, "per second"},
		{"rate", "20M/s", 0, `"20MiB"`},
		{"rate", "20/s", 0, "no unit"},
		{"duration", "10s", int64(10 * time.Second), ""},
		{"duration", "7d", int64(7 * 24 * time.Hour), ""},
		{"duration", "1h30m", int64(90 * time.Minute), ""},
		{"duration", "1.5s", int64(1500 * time.Millisecond), ""},
		{"duration", "500ms", int64(500 * time.Millisecond), ""},
		{"duration", "0s", 0, ""},
		{"duration", "5", 0, `no unit: write "5ms", "5s"`},
		{"duration", "-5s", 0, "negative"},
		{"duration", "30m1h", 0, "not a time"},
		{"duration", "1h1h", 0, "not a time"},
		{"duration", "10sec", 0, "not a time"},
		{"duration", "10 s", 0, "not a time"},
		{"duration", "", 0, "not a time"},
		{"duration", "200000d", 0, "too large"},
		{"duration", "106751d24h", 0, "too large"},
		{"percent", "85%", 85000, ""},
		{"percent", "12.5 %", 12500, ""},
		{"percent", "100%", 100000, ""},
		{"percent", "101%", 0, "more than 100%"},
		{"percent", "0.85", 0, `write "85%"`},
		{"percent", "-5%", 0, `write "85%"`},
	} {
		v, got, err := parse[tc.kind](tc.text)
		if tc.fault != "" {
			if err == nil || !strings.Contains(err.Error(), tc.fault) {
				t.Errorf("%s %q: error %v, want %q", tc.kind, tc.text, err, tc.fault)
			}
			if err != nil && len(err.Error()) > 300 {
				t.Errorf("%s: message of %d bytes", tc.kind, len(err.Error()))
			}
			continue
		}
		if err != nil || got != tc.want {
			t.Errorf("%s %q = %d, %v; want %d", tc.kind, tc.text, got, err, tc.want)
			continue
		}
		if _, again, err := parse[tc.kind](v.String()); err != nil || again != got {
			t.Errorf("%s %q prints as %q, which reads as %d, %v", tc.kind, tc.text, v, again, err)
		}
	}
}

func TestUnitsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Int64Range(0, 1<<63-1).Draw(t, "n")
		if b, err := conf.ParseBytes(conf.Bytes(n).String()); err != nil || int64(b) != n {
			t.Fatalf("%d → %s → %d, %v", n, conf.Bytes(n), b, err)
		}
		if r, err := conf.ParseRate(conf.Rate(n).String()); err != nil || int64(r) != n {
			t.Fatalf("%d → %s → %d, %v", n, conf.Rate(n), r, err)
		}
		d := conf.Duration(n / 1e6 * 1e6)
		if got, err := conf.ParseDuration(d.String()); err != nil || got != d {
			t.Fatalf("%d → %s → %d, %v", d, d, got, err)
		}
	})
}
