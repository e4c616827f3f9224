"""Name invented people: customers whose names are hard on software, and staff."""

from __future__ import annotations

from typing import Final

CUSTOMERS: Final = (
    "𠮷田美咲",
    "李㛃",
    "刘䶮",
    "Ǆemal Hodžić",
    "Søren Ærø",
    "王小明",
    "欧阳娜娜",
    "Zoë O’Connor-Nuñez",
    "Nguyễn Thị Ánh",
    "张𬎆",
    "买买提·吐尔逊",
    "김서연",
    "مريم الزهراء",
    "赵𫖯",
    "Łukasz Żółć",
    "陈㼆",
    "Иван Щёголев",
    "孙丽",
    "Þórdís Ǻstrand",
    "周杰",
    "吴𡋾",
    "Ana-María Ibáñez",
    "郑爽",
    "İbrahim Ağaoğlu",
    "冯𠅤",
    "Straße, Jürgen",
    "ǅenana Ljubić",
    "林徽因👩‍🏫",
    "黄𪚥",
    "Seán ﬀrench",
    "何洁",
    "Ωμέγα Παπαδοπούλου",
    "高圆圆",
    "Mbaŋgí Ɓello",
    "梁𣇉",
    "שרה כהן",
    "宋佳",
    "Jiří Řehoř",
    "唐㬎",
    "नीलम शर्मा",
)
"""Names from outside the basic plane, with three letter cases, right to left, with ligatures."""

STREETS: Final = ("彭城路", "淮海西路", "中山北路", "建国东路", "金山东路", "和平路", "解放南路")
NEEDS: Final = ("日常保洁", "月嫂", "老人陪护", "深度清洁", "钟点做饭", "家电清洗")
NOTES: Final = (
    "客户要求周末上门，门口有台阶；联系人姓𠮷。",
    "Customer asks for a call before arrival: “ring twice”.",
    "姓名中的䶮字系统打印不出，已手工核对。",
    "Kunden heter Søren, ikke Soren; navnet er rettet.",
    "老人听力不好，请大声敲门。",
    "Имя записано по паспорту: Щёголев.",
)

FRONT: Final = ("zhang.wei", "li.na", "ǆ.hodžić")
DISPATCH: Final = ("wang.fang", "øyvind.næss", "刘䶮")
CARE: Final = ("chen.jie", "𠮷田健")
OFFICE: Final = ("zhao.min", "compliance.sun")
"""Staff, by what they do; every name becomes a random pseudonym."""
