package trilith

import (
	"context"
	"encoding/json"

	datasourcev1 "github.com/trilith-db/trilith/client/go/gen/trilith/datasource/v1"
	queryv1 "github.com/trilith-db/trilith/client/go/gen/trilith/query/v1"
	taskv1 "github.com/trilith-db/trilith/client/go/gen/trilith/task/v1"
)

// Datasources lists the datasources that have visible segments, by name.
func (c *Client) Datasources(ctx context.Context) ([]*datasourcev1.Datasource, error) {
	answer, err := read(ctx, c, c.datasources.ListDatasources, &datasourcev1.ListDatasourcesRequest{})
	return answer.GetDatasources(), err
}

// Schema returns the columns of a datasource, `__time` first. Errors: ErrNotFound.
func (c *Client) Schema(ctx context.Context, datasource string) ([]*taskv1.Column, error) {
	answer, err := read(ctx, c, c.datasources.GetSchema, &datasourcev1.GetSchemaRequest{Datasource: datasource})
	return answer.GetColumns(), err
}

// Segments lists the segments of a datasource that queries read, ordered by interval, version and partition; of all
// datasources when its name is empty. The deadline is that of all pages together.
func (c *Client) Segments(ctx context.Context, datasource string) ([]*datasourcev1.Segment, error) {
	ctx, cancel := bounded(ctx, c.timeout)
	defer cancel()
	var segments []*datasourcev1.Segment
	request := &datasourcev1.ListSegmentsRequest{Datasource: datasource, PageSize: pageSize}
	for {
		page, err := read(ctx, c, c.datasources.ListSegments, request)
		if err != nil {
			return nil, err
		}
		segments = append(segments, page.GetSegments()...)
		request.PageToken = page.GetNextPageToken()
		if request.PageToken == "" {
			return segments, nil
		}
	}
}

// InferSignature reads the beginning of external data and returns its columns. Source and format are Druid's objects:
// maps, structs with JSON tags, or json.RawMessage.
//
// Errors: ErrInvalidInput.
func (c *Client) InferSignature(ctx context.Context, source, format any) ([]*taskv1.Column, error) {
	sourceJSON, err := json.Marshal(source)
	if err != nil {
		return nil, invalidInput("the input source is not JSON: %v", err)
	}
	formatJSON, err := json.Marshal(format)
	if err != nil {
		return nil, invalidInput("the input format is not JSON: %v", err)
	}
	answer, err := read(ctx, c, c.queries.InferSignature, &queryv1.InferSignatureRequest{
		InputSourceJson: string(sourceJSON),
		InputFormatJson: string(formatJSON),
	})
	return answer.GetColumns(), err
}
