// Package fairness shows, on the real binary over a throttled disk, that consumers share it as they are told to: equal
// weights and 3:1 (Shares), a capped group its cap and nothing of what a tail needs (Capped), and that one which retention is about
// to overtake wins its race (RetentionRace, with and without the boost). But for the capped one, client ids stand for groups.
// About a minute; needs root and loop devices.
package fairness
