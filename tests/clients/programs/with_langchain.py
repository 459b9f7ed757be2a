"""``with_langchain.py BASE_URL FILE``: the documents that LangChain's ``OpenAIWhisperParser`` makes of a file."""

import json
import sys

from langchain_community.document_loaders.parsers.audio import OpenAIWhisperParser
from langchain_core.documents.base import Blob

base, path = sys.argv[1:]
parser = OpenAIWhisperParser(api_key="none", base_url=base, language="en", temperature=0)
print(json.dumps([document.page_content for document in parser.parse(Blob.from_path(path))]))
