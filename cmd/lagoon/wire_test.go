package main

import (
	"strings"
	"testing"
	"time"

	"lagoon/admission"
	"lagoon/conf"
	"lagoon/internal/metadata"
	"lagoon/internal/quotas"
	"lagoon/internal/vfs"
)

// cold_fetch_byte_rate becomes the cap of a client id's cold reads; that of the default every reader's without a cap of its own.
func TestColdFetchByteRate(t *testing.T) {
	meta, err := metadata.Open(vfs.NewMem(1), "lagoon-metadata", metadata.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer meta.Close()
	cfg := &conf.Config{}
	cfg.Throttle.Mode, cfg.Throttle.PerReader.Max = "adaptive", 7<<20
	if got := limitsConfig(cfg, meta.Snapshot()).FlowBytesPerSecond; got != 7<<20 {
		t.Errorf("configured %d per reader", got)
	}
	for entity, rate := range map[quotas.Entity]float64{
		{ClientID: quotas.Named("etl")}:                                      1e6,
		{ClientID: quotas.Named("vast")}:                                     1e18,
		{ClientID: quotas.Default()}:                                         2e6,
		{User: quotas.Named("ANONYMOUS"), ClientID: quotas.Named("neither")}: 0,
	} {
		set := map[string]float64{"cold_fetch_byte_rate": rate}
		if rate == 0 {
			set = map[string]float64{"consumer_byte_rate": 5}
		}
		if err := meta.AlterQuotas(entity, set, nil); err != nil {
			t.Fatal(err)
		}
	}
	snap := meta.Snapshot()
	if got := limitsConfig(cfg, snap).FlowBytesPerSecond; got != 2e6 {
		t.Errorf("by default %d", got)
	}
	caps := map[string]int64{}
	for _, c := range subjectCaps(snap) {
		if c.Kind != admission.Client {
			t.Errorf("cap of %v", c.Subject)
		}
		caps[c.Name] = c.BytesPerSecond
	}
	if len(caps) != 2 || caps["etl"] != 1e6 || caps["vast"] != maxRate {
		t.Errorf("caps %v", caps)
	}
}

// Times in log lines have their unit, in JSON, too.
func TestDurationsInLogLines(t *testing.T) {
	for format, want := range map[string]string{"text": "elapsed=231ms", "json": `"elapsed":"231ms"`} {
		var out strings.Builder
		log, _ := newLogger(&out, conf.Log{Level: "info", Format: format})
		log.Info("stopped", "elapsed", 231*time.Millisecond)
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s: %s", format, &out)
		}
	}
}
