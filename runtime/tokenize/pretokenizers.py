"""How byte-level BPE vocabularies cut text into words: one table from `tokenizer.ggml.pre` to patterns and flags.

Data only. Patterns are in a syntax that Oniguruma (the engine inside `tokenizers`) and patterns.py read alike. They are
applied in order; each cuts every piece the one before left, keeping matches and gaps ("isolated").

Where the published tokenizer.json of a model and llama.cpp's table differ, the former is followed, because the model
was trained with it. llama.cpp's `std::regex` has no Unicode classes of letter case, so its `tekken`, `gpt-4o`,
`kimi-k2`, `youtu` and `tiny_aya` rules treat every non-ASCII letter as both upper and lower case and drop `\\p{M}`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Clitics of English, with and without case. The originals say (?i:...), which takes U+017F (long s) for an s.
_CLITIC = r"'s|'t|'re|'ve|'m|'ll|'d"
_CLITIC_ANY_CASE = r"(?:'[sS\u017f]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])".replace(r"\u017f", "\u017f")
_SPACES = r"\s+(?!\S)|\s+"  # leave the last space of a run to the word that follows it
_LINES = r"\s*[\r\n]+"
_LINES_AND_SPACES = f"{_LINES}|{_SPACES}"
# Digits in threes from the right, unless a letter follows. The original ends with \b, which `re` defines differently.
_DIGITS_FROM_RIGHT = r"\d{1,3}(?=(?:\d{3})*(?!\w))"
_UPPER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
_LOWER = r"\p{Ll}\p{Lm}\p{Lo}\p{M}"


def _cased_words(suffix: str = "", upper: str = f"[{_UPPER}]", lower: str = f"[{_LOWER}]") -> str:
    """Words that break where lower case turns into upper case ("camelCase" -> "camel", "Case")."""
    lead = r"[^\r\n\p{L}\p{N}]?"
    return f"{lead}{upper}*{lower}+{suffix}|{lead}{upper}+{lower}*{suffix}"


_GPT2 = rf"{_CLITIC}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|{_SPACES}"
_LLAMA3 = (
    rf"{_CLITIC_ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*"
    rf"|{_LINES_AND_SPACES}"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_O200K = rf"{_cased_words(_CLITIC_ANY_CASE + '?')}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_LINES_AND_SPACES}"
_ASCII_PUNCTUATION_WORD = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
_DEEPSEEK3_WORD = rf"{_ASCII_PUNCTUATION_WORD}|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
_CJK = "[一-龥\u3040-ゟ゠-ヿ]+"  # ideographs, hiragana, katakana
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_POWERS_OF_TWO_SPACES = (
    "".join(rf"\s{{{n}}}(?!\S)|" for n in (512, 256, 128, 64, 32, 16, 8, 4)) + r"\s{1,2}(?!\S)|\s{1}"
)
_DEEPSEEK_LLM_LETTERS = (
    "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝ"
    "Ὗ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯ"
    "ꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
)
_AFMOE_SCRIPTS = (
    "[一-鿿㐀-䶿\uf900-\ufaff\u3040-ゟ゠-ヿ･-ﾟ⼀-\u2fdf\u0e40-\u0e7f\u0e80-\u0eff\u1780-\u17ff\u1000-\u109f"
    "ꩠ-ꩿꧠ-\ua9ff가-\ud7afᄀ-ᇿ]+"
)

# The rules, by the name of the family that introduced them.
PATTERNS: dict[str, tuple[str, ...]] = {
    "gpt-2": (_GPT2,),
    "digits+gpt-2": (r"\p{N}", _GPT2),
    "llama3": (_LLAMA3,),
    "qwen2": (_QWEN2,),
    "qwen35": (
        rf"{_CLITIC_ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*"
        rf"|{_LINES_AND_SPACES}",
    ),
    "ufakzeka": (_QWEN2.removeprefix(f"{_CLITIC_ANY_CASE}|"),),  # Turkish suffixes keep their apostrophe
    "gpt-4o": (_O200K,),
    "tekken": (rf"{_cased_words()}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_LINES_AND_SPACES}",),
    "tiny_aya": (_DIGITS_FROM_RIGHT, _O200K),
    "youtu": (
        "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-\u303f︰-\ufe4f]+|[ㄅ-ㄯ]+|" + _CJK,
        _O200K.replace(r"\p{N}{1,3}", r"\p{N}"),
    ),
    "kimi-k2": (
        r"\p{Han}+|"
        + _cased_words(_CLITIC_ANY_CASE + "?", rf"[{_UPPER}&&[^\p{{Han}}]]", rf"[{_LOWER}&&[^\p{{Han}}]]")
        + rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_LINES_AND_SPACES}",
    ),
    "deepseek-llm": (
        r"[\r\n]",
        _DEEPSEEK_LLM_LETTERS,
        "\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
        r"(?<!\s)\s+$",  # originally \s+$, which tries every space of a long run in the middle of a text
        "[一-龥ࠀ-一가-\ud7ff]+",
        r"\p{N}+",
    ),
    "deepseek-coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", r"\p{N}"),
    "deepseek-v3": (r"\p{N}{1,3}", _CJK, rf"{_DEEPSEEK3_WORD}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_LINES_AND_SPACES}"),
    "spark2_5": (
        r"\p{N}{1,3}",
        _CJK,
        rf"{_DEEPSEEK3_WORD}| ?[\p{{P}}\p{{S}}]+|[\r\n]|{_SPACES}",
        r"\p{N}",
    ),
    "afmoe": (
        _DIGITS_FROM_RIGHT,
        _AFMOE_SCRIPTS,
        rf"{_DEEPSEEK3_WORD}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_LINES_AND_SPACES}",
    ),
    "falcon": (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"),
    "bloom": (_BLOOM,),
    "viking": (_BLOOM, r"\p{N}"),
    # The look-behind keeps the search for a line break from starting again for each 512 spaces.
    "jais-2": (_LLAMA3.replace(_LINES, rf"(?<![^\S\r\n]){_LINES}").replace(_SPACES, _POWERS_OF_TWO_SPACES),),
    "chameleon": (
        "<sentinel:[0-9]+>",
        "IMGIMG[A-I]{1,4}Z",
        r"[\t\n]|    |  ",
        r"\p{N}",
        r"[\p{P}!-/:-@\[-`{-~]",
        _GPT2,
    ),
    "superbpe": (r"\p{N}+", r"(?=(?:\d{3})+(?!\d))"),  # no cut at spaces: its tokens span words
    "seed-coder": (
        rf"{_CLITIC_ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+"
        rf"|{_LINES_AND_SPACES}",
    ),
    "laguna": (r"\n+", _QWEN2),
    "exaone-moe": (
        rf"{_CLITIC_ANY_CASE}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]?|\s*[\r\n]|{_SPACES}",
    ),
    "minicpm5": (r"\p{N}{1,3}", _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}+")),
    "whitespace": (r"\s+",),  # matches are dropped
    "newlines": (r"\n+",),  # merges never cross a line break
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
}

# Patterns that look ahead to the end of a run of digits take quadratic time on a long run, so such runs are cut first,
# at places the pattern itself would cut (see words.cut_digit_runs).
GROUPS_DIGITS_FROM_RIGHT = frozenset({"tiny_aya", "afmoe", "superbpe"})


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    """One row of the table.

    alphabet: "bytes" = the 256 printable stand-ins of GPT-2; "spm" = raw text, U+2581 for a space and <0xNN> byte
    tokens; "words" = raw text, white space dropped.
    ignore_merges: a word that is a token as a whole needs no merges.
    add_bos: the default of `tokenizer.ggml.add_bos_token`.
    """

    rule: str
    alphabet: Literal["bytes", "spm", "words"] = "bytes"
    ignore_merges: bool = False
    add_bos: bool = False

    @property
    def patterns(self) -> tuple[str, ...]:
        return PATTERNS[self.rule]


def _rows(names: str, row: PreTokenizer) -> dict[str, PreTokenizer]:
    return dict.fromkeys(names.split(), row)


_LLAMA3_ROW = PreTokenizer("llama3", ignore_merges=True, add_bos=True)

# Every name that `gguf` and llama.cpp write. Names in one call are one rule under the names of the models that use it.
PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    **_rows("default", PreTokenizer("default")),
    **_rows("gpt-2 phi-2 mpt olmo jais trillion granite-docling exaone4 mellum modern-bert", PreTokenizer("gpt-2")),
    **_rows("gigachat a.x-4.0 jina-es jina-de jina-v2-es jina-v2-de", PreTokenizer("gpt-2")),
    **_rows("roberta-bpe jina-v1-en jina-v2-code", PreTokenizer("gpt-2")),  # RoBERTa vocabularies, GPT-2 words
    **_rows("starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", PreTokenizer("digits+gpt-2")),
    **_rows("llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano", _LLAMA3_ROW),
    **_rows("dbrx smaug-bpe chatglm-bpe", PreTokenizer("llama3")),  # cl100k words, plain merges
    **_rows("glm4 glm5", PreTokenizer("llama3", ignore_merges=True)),
    **_rows("jais-2", PreTokenizer("jais-2")),
    **_rows("qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2", PreTokenizer("qwen2")),
    **_rows("qwen35", PreTokenizer("qwen35")),
    **_rows("ufakzeka", PreTokenizer("ufakzeka")),
    **_rows("gpt-4o llama4 kanana2 talkie minimax-m2", PreTokenizer("gpt-4o")),
    **_rows("granite-embed-multi-97m", PreTokenizer("gpt-4o", ignore_merges=True)),
    **_rows("tekken", PreTokenizer("tekken", ignore_merges=True, add_bos=True)),
    **_rows("tiny_aya cohere2moe", PreTokenizer("tiny_aya")),
    **_rows("youtu", PreTokenizer("youtu", ignore_merges=True)),
    **_rows("kimi-k2", PreTokenizer("kimi-k2")),
    **_rows("deepseek-llm", PreTokenizer("deepseek-llm")),
    **_rows("deepseek-coder", PreTokenizer("deepseek-coder")),
    **_rows("deepseek-v3 hunyuan-dense joyai-llm hy_v4", PreTokenizer("deepseek-v3")),
    **_rows("spark2_5", PreTokenizer("spark2_5")),
    **_rows("afmoe", PreTokenizer("afmoe")),
    **_rows("falcon", PreTokenizer("falcon")),
    **_rows("bloom gpt3-finnish poro-chat", PreTokenizer("bloom")),
    **_rows("viking", PreTokenizer("viking")),
    **_rows("chameleon", PreTokenizer("chameleon", add_bos=True)),
    **_rows("superbpe", PreTokenizer("superbpe")),
    # Written differently (possessive, one line break: \s* takes the others), but the same words as qwen2.
    **_rows("bailingmoe bailingmoe2 llada-moe", PreTokenizer("qwen2")),
    **_rows("seed-coder", PreTokenizer("seed-coder")),
    **_rows("laguna", PreTokenizer("laguna")),
    **_rows("exaone-moe", PreTokenizer("exaone-moe")),
    **_rows("minicpm5", PreTokenizer("minicpm5", ignore_merges=True)),
    # The converter once wrote add_bos_token = false for gemma4, so it is forced there (see vocabulary.py).
    **_rows("gemma4 granite-embed-multi-311m", PreTokenizer("newlines", alphabet="spm", add_bos=True)),
    **_rows("sarvam-moe", PreTokenizer("newlines", alphabet="spm")),
    **_rows("whitespace", PreTokenizer("whitespace", alphabet="words")),
}
