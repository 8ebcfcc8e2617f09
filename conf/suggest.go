package conf

import (
	"fmt"
	"slices"
	"strings"
)

// kafkaOnly explains Kafka server.properties keys that have no key here.
var kafkaOnly = map[string]string{
	"zookeeper.connect":                 "Lagoon needs no ZooKeeper: delete this line",
	"process.roles":                     "one Lagoon process is broker and controller: delete this line",
	"controller.quorum.voters":          "one Lagoon process is broker and controller: delete this line",
	"controller.listener.names":         "one Lagoon process is broker and controller: delete this line",
	"num.network.threads":               "Lagoon sizes this itself: delete this line",
	"num.io.threads":                    "Lagoon sizes this itself: delete this line",
	"num.recovery.threads.per.data.dir": "Lagoon sizes this itself: delete this line",
	"default.replication.factor":        "this is a single-node broker: delete this line",
	"offsets.topic.replication.factor":  "this is a single-node broker: delete this line",
	"min.insync.replicas":               "this is a single-node broker: delete this line",
	"cleanup.policy":                    "set it per topic, with kafka-configs --entity-type topics",
	"log.cleanup.policy":                "set cleanup.policy per topic, with kafka-configs --entity-type topics",
	"compression.type":                  "set it per topic, with kafka-configs --entity-type topics",
	"message.timestamp.type":            "set it per topic, with kafka-configs --entity-type topics",
	"log.message.timestamp.type":        "set message.timestamp.type per topic, with kafka-configs --entity-type topics",
	"delete.topic.enable":               "topics can always be deleted: delete this line",
	"remote.storage.enable":             "list the tiers as [[storage.tier]]",
}

// unknownKey writes the text for a key that does not exist: the nearest key, or the key that Kafka's name stands for.
func (s *schema) unknownKey(path []string) string {
	dotted := strings.Join(path, ".")
	for i := range path { // `log.segment.bytes` below [storage] is storage.log.segment.bytes
		name := strings.Join(path[i:], ".")
		if key, ok := s.kafka[name]; ok {
			return fmt.Sprintf("unknown key; Kafka's %s is %s here", name, key)
		}
		if text, ok := kafkaOnly[name]; ok {
			return fmt.Sprintf("unknown key; Kafka's %s does not exist here: %s", name, text)
		}
	}
	parent, leaf := strings.Join(path[:len(path)-1], "."), path[len(path)-1]
	if best := nearest(leaf, s.children[parent]); best != "" {
		return fmt.Sprintf("unknown key; did you mean %s?", strings.TrimPrefix(parent+"."+best, "."))
	}
	for _, key := range slices.Concat(s.keys, s.tables) { // right name, wrong table
		if key[strings.LastIndexByte(key, '.')+1:] == leaf {
			return fmt.Sprintf("unknown key; did you mean %s?", key)
		}
	}
	if best := nearest(dotted, s.keys); best != "" {
		return fmt.Sprintf("unknown key; did you mean %s?", best)
	}
	if best := nearest(dotted, s.kafkaNames); best != "" {
		return fmt.Sprintf("unknown key; did you mean Kafka's %s, which is %s here?", best, s.kafka[best])
	}
	if known := s.children[parent]; len(known) > 0 && parent != "" {
		return fmt.Sprintf("unknown key; [%s] has %s", parent, strings.Join(known, ", "))
	}
	return "unknown key; see lagoon check-config --defaults for all keys"
}

// nearest returns the candidate within Damerau-Levenshtein distance 2 of word (1 for short words), "" when none is.
func nearest(word string, candidates []string) string {
	limit := 2
	if len(word) < 5 {
		limit = 1
	}
	best, bestDistance := "", limit+1
	for _, c := range candidates {
		if d := distance(word, c, limit); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the optimal string alignment distance of a and b; above limit any larger number is returned. Long words are
// refused before work is spent on them.
func distance(a, b string, limit int) int {
	if len(a) > 128 || len(b) > 128 || len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	var before, prev []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, prev, row = prev, row, make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(b)]
}

// oneOf writes the complaint about a word that is none of allowed.
func oneOf(got string, allowed []string) string {
	text := fmt.Sprintf("%s is not one of %s", clip(got), strings.Join(allowed, ", "))
	if best := nearest(got, allowed); best != "" && !slices.Contains(allowed, got) {
		text += fmt.Sprintf("; did you mean %q?", best)
	}
	return text
}
