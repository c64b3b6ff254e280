package trilith

import (
	"strconv"
	"strings"

	taskv1 "github.com/trilith-db/trilith/client/go/gen/trilith/task/v1"
)

// Report is what is known of a task, with sums over its counters.
type Report struct {
	*taskv1.TaskReport
}

// Stage is how far one stage is.
type Stage struct {
	// Number from 0.
	Number uint32
	// Processor is the kind of work: "scan", "segmentGenerator", …
	Processor string
	// Phase is "NEW", "READING_INPUT", …, "FINISHED"; empty before the stage started.
	Phase string
	// Workers and Partitions are counts; 0 while unknown.
	Workers, Partitions uint32
	// RowsRead is of all inputs, RowsWritten of the output after the shuffle, in rows.
	RowsRead, RowsWritten int64
}

// Stages lists the stages in their order; empty until the statement was planned.
func (r *Report) Stages() []Stage {
	stages := make([]Stage, 0, len(r.GetStages()))
	for _, stage := range r.GetStages() {
		number := stage.GetStageNumber()
		output := "output"
		if stage.Shuffle != nil {
			output = "shuffle"
		}
		stages = append(stages, Stage{
			Number:     number,
			Processor:  stage.GetDefinition().GetProcessorType(),
			Phase:      stage.GetPhase(),
			Workers:    stage.GetWorkerCount(),
			Partitions: stage.GetPartitionCount(),
			RowsRead: r.rows(func(counter *taskv1.Counter) bool {
				return counter.GetStageNumber() == number && strings.HasPrefix(counter.GetName(), "input")
			}),
			RowsWritten: r.rows(func(counter *taskv1.Counter) bool {
				return counter.GetStageNumber() == number && counter.GetName() == output
			}),
		})
	}
	return stages
}

// RowsRead is how many rows were read from external data, datasources and the statement itself: from whatever is not
// the output of another stage.
func (r *Report) RowsRead() int64 {
	stages := map[uint32][]*taskv1.StageInput{}
	for _, stage := range r.GetStages() {
		stages[stage.GetStageNumber()] = stage.GetDefinition().GetInputs()
	}
	return r.rows(func(counter *taskv1.Counter) bool {
		digits, isInput := strings.CutPrefix(counter.GetName(), "input")
		index, err := strconv.Atoi(digits)
		inputs := stages[counter.GetStageNumber()]
		if !isInput || err != nil || index >= len(inputs) {
			return false
		}
		_, fromStage := inputs[index].GetInput().(*taskv1.StageInput_StageNumber)
		return !fromStage
	})
}

// RowsWritten is how many rows the task made: those in its segments, or those of the result of a SELECT.
func (r *Report) RowsWritten() int64 {
	if r.GetResults() != nil {
		return r.GetResults().GetRowCount()
	}
	return r.RowsPushed()
}

// RowsPushed is how many rows (after rollup) are in segments in deep storage.
func (r *Report) RowsPushed() (rows int64) {
	for _, counter := range r.GetCounters() {
		rows += counter.GetSegmentGenerationProgress().GetRowsPushed()
	}
	return rows
}

// Warnings lists faults that did not fail the task, such as records that could not be parsed.
func (r *Report) Warnings() []*taskv1.ErrorReport {
	return r.GetStatus().GetWarnings()
}

func (r *Report) rows(wanted func(*taskv1.Counter) bool) (rows int64) {
	for _, counter := range r.GetCounters() {
		if wanted(counter) {
			for _, partition := range counter.GetChannel().GetRows() {
				rows += partition
			}
		}
	}
	return rows
}
