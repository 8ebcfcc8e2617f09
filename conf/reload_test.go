package conf_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"lagoon/conf"
)

func parsed(t *testing.T, text string) *conf.Config {
	t.Helper()
	c, err := conf.Parse("lagoon.toml", text, conf.LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestTakesSomeKeysOfANewFile: the named ones with their origins, tables as a whole, what is gone included; the others stay.
func TestTakesSomeKeysOfANewFile(t *testing.T) {
	was := parsed(t, "[server]\nrack = \"a\"\n[storage]\nretention = \"1d\"\n[topic_defaults]\n\"min.compaction.lag.ms\" = \"5\"\n\"cleanup.policy\" = \"compact\"\n")
	next := parsed(t, "[server]\nrack = \"b\"\n\n\n[storage]\nretention = \"2d\"\n[topic_defaults]\n\"cleanup.policy\" = \"delete\"\n")
	live := []string{"storage.retention", "topic_defaults", "throttle.per_reader.max"}
	merged, err := was.With(next, live)
	if err != nil {
		t.Fatal(err)
	}
	want := []conf.Change{
		{Key: "storage.retention", From: `"1d"`, To: `"2d"`, Source: "lagoon.toml:6"},
		{Key: "topic_defaults.cleanup.policy", From: `"compact"`, To: `"delete"`, Source: "lagoon.toml:8"},
		{Key: "topic_defaults.min.compaction.lag.ms", From: `"5"`, To: "", Source: "default"},
	}
	if diff := cmp.Diff(want, was.Changes(merged)); diff != "" {
		t.Errorf("taken (-want +got)\n%s", diff)
	}
	if diff := cmp.Diff([]conf.Change{{Key: "server.rack", From: `"a"`, To: `"b"`, Source: "lagoon.toml:2"}}, merged.Changes(next)); diff != "" {
		t.Errorf("left (-want +got)\n%s", diff)
	}
	if was.Server.Rack != "a" || was.Topics["cleanup.policy"] != "compact" || merged.Server.Rack != "a" || merged.Source("storage.retention") != "lagoon.toml:6" {
		t.Errorf("was %+v, merged from %s", was.Topics, merged.Source("storage.retention"))
	}
	if again := merged.Changes(merged); len(again) > 0 {
		t.Errorf("differs from itself: %v", again)
	}
	if !conf.Below("topic_defaults.cleanup.policy", live) || conf.Below("storage.retention_bytes", live) || conf.Below("storage", live) {
		t.Error("what lies below a key")
	}
}

// TestPartsOfTwoFilesMustGoTogether: each file is right, and what would run is not.
func TestPartsOfTwoFilesMustGoTogether(t *testing.T) {
	was := parsed(t, "[readers]\nchunk_bytes = \"4MiB\"\nchunk_memory = \"64MiB\"\n")
	next := parsed(t, "[readers]\nchunk_bytes = \"1MiB\"\nchunk_memory = \"4MiB\"\n")
	if _, err := was.With(next, []string{"readers.chunk_memory"}); err == nil || !strings.Contains(err.Error(), "readers.chunk_memory") {
		t.Errorf("%v", err)
	}
}
