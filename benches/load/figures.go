package main

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// latencies are durations that many goroutines measure.
type latencies struct {
	mutex  sync.Mutex
	values []time.Duration
}

func (l *latencies) add(value time.Duration) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.values = append(l.values, value)
}

func (l *latencies) count() int {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return len(l.values)
}

// durations in ascending order.
func (l *latencies) durations() []time.Duration {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	sorted := slices.Clone(l.values)
	slices.Sort(sorted)
	return sorted
}

func (l *latencies) String() string {
	sorted := l.durations()
	if len(sorted) == 0 {
		return "none"
	}
	return fmt.Sprintf("p50 %s, p99 %s, longest %s", rounded(percentile(sorted, 50)), rounded(percentile(sorted, 99)),
		rounded(sorted[len(sorted)-1]))
}

func rounded(value time.Duration) time.Duration { return value.Round(100 * time.Microsecond) }

// percentile of values in ascending order, by the nearest rank; there must be at least one.
func percentile(sorted []time.Duration, percent int) time.Duration {
	return sorted[max((len(sorted)*percent+99)/100, 1)-1]
}

// tally counts texts.
type tally struct {
	mutex  sync.Mutex
	counts map[string]int
}

func (t *tally) add(text string) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.counts == nil {
		t.counts = map[string]int{}
	}
	t.counts[text]++
}

func (t *tally) count() (sum int) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	for _, count := range t.counts {
		sum += count
	}
	return sum
}

// print shows each text with its count, in the order of the texts.
func (t *tally) print(title string) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	for _, text := range slices.Sorted(maps.Keys(t.counts)) {
		fmt.Printf("%-10s %d × %s\n", title, t.counts[text], text)
	}
}

// sample is the resident memory of the server at some time since the start of the load, in bytes.
type sample struct {
	at  time.Duration
	rss uint64
}

// medianBetween is the median of the samples from one time to another; 0 without any.
func medianBetween(samples []sample, from, to time.Duration) uint64 {
	var values []uint64
	for _, sample := range samples {
		if sample.at >= from && sample.at <= to {
			values = append(values, sample.rss)
		}
	}
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[len(values)/2]
}

func peak(samples []sample) (most uint64) {
	for _, sample := range samples {
		most = max(most, sample.rss)
	}
	return most
}
