// Command load puts one server under many clients at once and says whether it stays well.
//
// It starts the server itself. 200 clients submit small tasks, one after the other, and watch each to its end; 50 stream
// all rows of a table over and over; a prober, in a process of its own, asks for known tasks 20 times a
// second, on time whether the answer to the last question came or not. Every client has a connection of its own.
//
// Exit status 0 when all of this holds: no error but RESOURCE_EXHAUSTED with a hint when to come back (which is
// obeyed), the 99th percentile of GetTask is below 20 ms, and the memory of the server is flat: at most 10 % more
// after the load than in its middle.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"
)

const (
	probeLimit  = 20 * time.Millisecond
	growthLimit = 1.10
	// Longest that tasks and streams which had begun may take to end.
	drainLimit = 2 * time.Minute
	// Longest that the memory of the server may take to settle afterwards.
	settleLimit = time.Minute
)

func main() {
	trilith := flag.String("trilith", "../../target/release/trilith", "the server's program")
	data := flag.String("data", "../../tests/data", "directory with wikipedia-edits.json.gz")
	seconds := flag.Int("seconds", 60, "length of the load")
	submitters := flag.Int("submitters", 200, "clients that submit tasks")
	streamers := flag.Int("streamers", 50, "clients that stream rows")
	slots := flag.Int("worker-slots", 2, "worker slots of the server")
	probed := flag.String("probe", "", "be the prober of the server at this address (for the program's own use)")
	flag.Parse()
	if *probed != "" {
		if err := probe(*probed, time.Duration(*seconds)*time.Second); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		return
	}
	passed, err := run(*trilith, *data, time.Duration(*seconds)*time.Second, *submitters, *streamers, *slots)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if !passed {
		os.Exit(1)
	}
}

func run(program, data string, length time.Duration, submitters, streamers, slots int) (bool, error) {
	server, err := startServer(program, data, slots)
	if err != nil {
		return false, err
	}
	defer server.stop()
	load, err := prepare(server, data)
	if err != nil {
		return false, err
	}
	defer load.close()
	before, err := server.rss()
	if err != nil {
		return false, err
	}

	memory := server.sample()
	if err := load.run(length, submitters, streamers); err != nil {
		return false, err
	}
	samples := memory.stop()
	ctx, cancel := context.WithTimeout(context.Background(), settleLimit)
	defer cancel()
	middle := medianBetween(samples, length/3, 2*length/3)
	after, err := server.settle(ctx, uint64(float64(middle)*growthLimit))
	if err != nil {
		return false, fmt.Errorf("the server did not survive the load: %w", err)
	}

	load.print(length)
	fmt.Printf("memory     %d MB before, %d MB in the middle, %d MB at most, %d MB after\n",
		before>>20, middle>>20, peak(samples)>>20, after>>20)
	probes := load.probes.durations()
	checks := []struct {
		what   string
		passed bool
	}{
		{"no error but RESOURCE_EXHAUSTED with a hint", load.failures.count() == 0},
		{"tasks were run and rows were streamed", load.tasks.count() > 0 && load.streams.count() > 0},
		{fmt.Sprintf("p99 of GetTask below %s", probeLimit), len(probes) > 0 && percentile(probes, 99) < probeLimit},
		{"memory afterwards at most that of the middle and 10 %", float64(after) <= float64(middle)*growthLimit},
	}
	all := true
	for _, check := range checks {
		word := "passed"
		if !check.passed {
			word, all = "FAILED", false
		}
		fmt.Printf("%s     %s\n", word, check.what)
	}
	return all, nil
}
