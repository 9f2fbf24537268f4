"""What the assistant writes around a call: the thought before it, and the answer made from it.

Thoughts are one fixed line per tool and language: they are how a very small model chooses.
Answers carry the values of the observation, copied; `simulate.values` names them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from finetune.pretrain.simulate import ERROR, NOTHING, TRUNCATED

NEEDS = {
    "get_weather": ("the weather", "查询天气"),
    "calculator": ("a calculation", "计算"),
    "get_time": ("the time", "查询时间"),
    "convert_unit": ("a conversion", "换算单位"),
    "random_number": ("a random number", "随机数"),
    "search_files": ("to search the files", "搜索文件"),
    "read_file": ("to read the file", "读取文件"),
    "query_table": ("to query the table", "查询表格"),
}


def thought(name: str, need: str, chinese: bool) -> str:
    """The line before a call, for any tool and what it is needed for."""
    if chinese:
        return f"需要{need}，我将调用 {name}。"
    return f"I need {need}, so I will call {name}."


def answer(name: str, arguments: Mapping[str, Any], observation: str, chinese: bool) -> str:
    """The answer after the observation of a built-in tool."""
    if observation.startswith(ERROR):
        sentence = observation[len(ERROR) :].rstrip(".。")
        return f"工具报错：{sentence}。" if chinese else f"The tool reported an error: {sentence}."
    return WRITERS[name](arguments, observation, chinese)


def _weather(arguments: Mapping[str, Any], observation: str, chinese: bool) -> str:
    data = json.loads(observation)
    if chinese:
        return f"{data['city']}现在{data['weather']}，气温 {data['temperature']}。"
    return f"In {data['city']} it is {data['weather']} and {data['temperature']}."


def _calculator(arguments: Mapping[str, Any], observation: str, chinese: bool) -> str:
    return f"结果是 {observation}。" if chinese else f"The result is {observation}."


def _time(arguments: Mapping[str, Any], observation: str, chinese: bool) -> str:
    data = json.loads(observation)
    if chinese:
        return f"{data['place']}现在是 {data['time']}。"
    return f"In {data['place']} it is {data['time']} now."


def _convert(arguments: Mapping[str, Any], observation: str, chinese: bool) -> str:
    data = json.loads(observation)
    value = json.dumps(data["value"])
    return f"换算结果是 {value} {data['unit']}。" if chinese else f"That is {value} {data['unit']}."


def _random(arguments: Mapping[str, Any], observation: str, chinese: bool) -> str:
    return f"随机数是 {observation}。" if chinese else f"The number is {observation}."


def _search(arguments: Mapping[str, Any], observation: str, chinese: bool) -> str:
    if observation == NOTHING:
        query = arguments["query"]
        return f"没有找到 {query}。" if chinese else f"Nothing was found for {query}."
    hits = json.loads(observation)
    if chinese:
        return "；".join(f"{hit['file']} 第 {hit['line']} 行：{hit['text']}" for hit in hits) + "。"
    return "; ".join(f"{hit['file']}, line {hit['line']}: {hit['text']}" for hit in hits) + "."


def _read(arguments: Mapping[str, Any], observation: str, chinese: bool) -> str:
    text = observation.removesuffix(TRUNCATED)
    rest = (
        "" if text == observation else ("（后面还有内容）" if chinese else " (The file goes on.)")
    )
    name = arguments["name"]
    return f"{name} 的内容是：{text}{rest}" if chinese else f"{name} says: {text}{rest}"


def _query(arguments: Mapping[str, Any], observation: str, chinese: bool) -> str:
    rows = json.loads(observation)["rows"]
    text = "; ".join(", ".join(str(cell) for cell in row) for row in rows)
    return f"查询结果：{text}。" if chinese else f"The query gives: {text}."


WRITERS = {
    "get_weather": _weather,
    "calculator": _calculator,
    "get_time": _time,
    "convert_unit": _convert,
    "random_number": _random,
    "search_files": _search,
    "read_file": _read,
    "query_table": _query,
}
