"""The API's contract: schemas of requests and answers, problems, tokens, headers."""
