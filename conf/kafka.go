package conf

import (
	"maps"
	"strconv"
)

// TopicDefaults are the server's defaults of topic settings by Kafka's topic names, as the catalogue and DescribeConfigs know them.
// -1 is unlimited. Those of [topic_defaults] are among them as they were written.
func (c *Config) TopicDefaults() map[string]string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	s := &c.Storage
	out := maps.Clone(c.Topics)
	if out == nil {
		out = map[string]string{}
	}
	maps.Copy(out, map[string]string{
		"segment.bytes":            number(int64(s.SegmentBytes)),
		"segment.ms":               number(s.SegmentAge.Ms()),
		"retention.ms":             number(s.Retention.Ms()),
		"retention.bytes":          number(int64(s.RetentionBytes)),
		"index.interval.bytes":     number(int64(s.IndexInterval)),
		"max.message.bytes":        number(int64(s.MaxMessageBytes)),
		"file.delete.delay.ms":     number(s.FileDeleteDelay.Ms()),
		"lagoon.flush":             s.Flush,
		"lagoon.flush.interval.ms": number(s.FlushInterval.Ms()),
	})
	return out
}
